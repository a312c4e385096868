target triple = "x86_64-unknown-linux-gnu"
define i32 @graphc_kernel(ptr %a0, ptr %a1, i64 %a2, i64 %a3, ptr %a4) nounwind "no-builtins" "prefer-vector-width"="512" {
entry1:
  br label %start2
start2:
  %v3 = getelementptr ptr, ptr %a0, i64 0
  %v4 = load ptr, ptr %v3
  %v5 = getelementptr ptr, ptr %a0, i64 1
  %v6 = load ptr, ptr %v5
  %v7 = getelementptr i64, ptr %a1, i64 1
  %v8 = load i64, ptr %v7, align 8
  %v11 = icmp slt i64 %a2, %a3
  br i1 %v11, label %b9, label %b10
b9:
  %v12 = phi i64 [ %a2, %start2 ], [ %v76, %b63 ]
  %v13 = and i64 %v8, 63
  %v14 = mul i64 %v13, 18446744073709551615
  %v15 = add i64 %v8, %v14
  %v18 = icmp slt i64 0, %v15
  br i1 %v18, label %b16, label %b17
b10:
  ret i32 0
b16:
  %v19 = phi i64 [ 0, %b9 ], [ %v41, %b16 ]
  %v20 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v37, %b16 ]
  %v21 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v38, %b16 ]
  %v22 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v39, %b16 ]
  %v23 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v40, %b16 ]
  %v24 = mul i64 %v12, %v8
  %v25 = add i64 %v24, %v19
  %v26 = add i64 %v25, 16
  %v27 = add i64 %v25, 32
  %v28 = add i64 %v25, 48
  %v29 = getelementptr float, ptr %v4, i64 %v25
  %v30 = load <16 x float>, ptr %v29, align 4
  %v31 = getelementptr float, ptr %v4, i64 %v26
  %v32 = load <16 x float>, ptr %v31, align 4
  %v33 = getelementptr float, ptr %v4, i64 %v27
  %v34 = load <16 x float>, ptr %v33, align 4
  %v35 = getelementptr float, ptr %v4, i64 %v28
  %v36 = load <16 x float>, ptr %v35, align 4
  %v37 = fadd <16 x float> %v20, %v30
  %v38 = fadd <16 x float> %v21, %v32
  %v39 = fadd <16 x float> %v22, %v34
  %v40 = fadd <16 x float> %v23, %v36
  %v41 = add nsw i64 %v19, 64
  %v42 = icmp slt i64 %v41, %v15
  br i1 %v42, label %b16, label %b17
b17:
  %v43 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v37, %b16 ]
  %v44 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v38, %b16 ]
  %v45 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v39, %b16 ]
  %v46 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v40, %b16 ]
  %v47 = fadd <16 x float> %v43, %v45
  %v48 = fadd <16 x float> %v44, %v46
  %v49 = fadd <16 x float> %v47, %v48
  %v50 = shufflevector <16 x float> %v49, <16 x float> %v49, <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7>
  %v51 = shufflevector <16 x float> %v49, <16 x float> %v49, <8 x i32> <i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>
  %v52 = fadd <8 x float> %v50, %v51
  %v53 = shufflevector <8 x float> %v52, <8 x float> %v52, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %v54 = shufflevector <8 x float> %v52, <8 x float> %v52, <4 x i32> <i32 4, i32 5, i32 6, i32 7>
  %v55 = fadd <4 x float> %v53, %v54
  %v56 = shufflevector <4 x float> %v55, <4 x float> %v55, <2 x i32> <i32 0, i32 1>
  %v57 = shufflevector <4 x float> %v55, <4 x float> %v55, <2 x i32> <i32 2, i32 3>
  %v58 = fadd <2 x float> %v56, %v57
  %v59 = extractelement <2 x float> %v58, i32 0
  %v60 = extractelement <2 x float> %v58, i32 1
  %v61 = fadd float %v59, %v60
  %v64 = icmp slt i64 %v15, %v8
  br i1 %v64, label %b62, label %b63
b62:
  %v65 = phi i64 [ %v15, %b17 ], [ %v72, %b62 ]
  %v66 = phi float [ %v61, %b17 ], [ %v71, %b62 ]
  %v67 = mul i64 %v12, %v8
  %v68 = add i64 %v67, %v65
  %v69 = getelementptr float, ptr %v4, i64 %v68
  %v70 = load float, ptr %v69, align 4
  %v71 = fadd float %v66, %v70
  %v72 = add nsw i64 %v65, 1
  %v73 = icmp slt i64 %v72, %v8
  br i1 %v73, label %b62, label %b63
b63:
  %v74 = phi float [ %v61, %b17 ], [ %v71, %b62 ]
  %v75 = getelementptr float, ptr %v6, i64 %v12
  store float %v74, ptr %v75, align 4
  %v76 = add nsw i64 %v12, 1
  %v77 = icmp slt i64 %v76, %a3
  br i1 %v77, label %b9, label %b10
}

!0 = !{i32 1}
