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
  %v12 = phi i64 [ %a2, %start2 ], [ %v77, %b63 ]
  %v13 = call i64 @llvm.expect.i64(i64 %v12, i64 0)
  %v14 = and i64 %v8, 63
  %v15 = sub i64 %v8, %v14
  %v19 = icmp slt i64 0, %v15
  br i1 %v19, label %b16, label %b18
b10:
  ret i32 0
b16:
  %v26 = mul i64 %v8, %v13
  %v27 = getelementptr float, ptr %v4, i64 %v26
  br label %b17
b17:
  %v20 = phi i64 [ 0, %b16 ], [ %v40, %b17 ]
  %v21 = phi <16 x float> [ splat (float 0x0000000000000000), %b16 ], [ %v36, %b17 ]
  %v22 = phi <16 x float> [ splat (float 0x0000000000000000), %b16 ], [ %v37, %b17 ]
  %v23 = phi <16 x float> [ splat (float 0x0000000000000000), %b16 ], [ %v38, %b17 ]
  %v24 = phi <16 x float> [ splat (float 0x0000000000000000), %b16 ], [ %v39, %b17 ]
  %v25 = call i64 @llvm.expect.i64(i64 %v20, i64 0)
  %v28 = getelementptr float, ptr %v27, i64 %v25
  %v29 = load <16 x float>, ptr %v28, align 4
  %v30 = getelementptr float, ptr %v28, i64 16
  %v31 = load <16 x float>, ptr %v30, align 4
  %v32 = getelementptr float, ptr %v28, i64 32
  %v33 = load <16 x float>, ptr %v32, align 4
  %v34 = getelementptr float, ptr %v28, i64 48
  %v35 = load <16 x float>, ptr %v34, align 4
  %v36 = fadd <16 x float> %v21, %v29
  %v37 = fadd <16 x float> %v22, %v31
  %v38 = fadd <16 x float> %v23, %v33
  %v39 = fadd <16 x float> %v24, %v35
  %v40 = add nsw i64 %v20, 64
  %v41 = icmp slt i64 %v40, %v15
  br i1 %v41, label %b17, label %b18
b18:
  %v42 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v36, %b17 ]
  %v43 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v37, %b17 ]
  %v44 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v38, %b17 ]
  %v45 = phi <16 x float> [ splat (float 0x0000000000000000), %b9 ], [ %v39, %b17 ]
  %v46 = fadd <16 x float> %v42, %v44
  %v47 = fadd <16 x float> %v43, %v45
  %v48 = fadd <16 x float> %v46, %v47
  %v49 = shufflevector <16 x float> %v48, <16 x float> %v48, <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7>
  %v50 = shufflevector <16 x float> %v48, <16 x float> %v48, <8 x i32> <i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>
  %v51 = fadd <8 x float> %v49, %v50
  %v52 = shufflevector <8 x float> %v51, <8 x float> %v51, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %v53 = shufflevector <8 x float> %v51, <8 x float> %v51, <4 x i32> <i32 4, i32 5, i32 6, i32 7>
  %v54 = fadd <4 x float> %v52, %v53
  %v55 = shufflevector <4 x float> %v54, <4 x float> %v54, <2 x i32> <i32 0, i32 1>
  %v56 = shufflevector <4 x float> %v54, <4 x float> %v54, <2 x i32> <i32 2, i32 3>
  %v57 = fadd <2 x float> %v55, %v56
  %v58 = extractelement <2 x float> %v57, i32 0
  %v59 = extractelement <2 x float> %v57, i32 1
  %v60 = fadd float %v58, %v59
  %v64 = icmp slt i64 %v15, %v8
  br i1 %v64, label %b61, label %b63
b61:
  %v68 = mul i64 %v8, %v13
  %v69 = getelementptr float, ptr %v4, i64 %v68
  br label %b62
b62:
  %v65 = phi i64 [ %v15, %b61 ], [ %v73, %b62 ]
  %v66 = phi float [ %v60, %b61 ], [ %v72, %b62 ]
  %v67 = call i64 @llvm.expect.i64(i64 %v65, i64 0)
  %v70 = getelementptr float, ptr %v69, i64 %v67
  %v71 = load float, ptr %v70, align 4
  %v72 = fadd float %v66, %v71
  %v73 = add nsw i64 %v65, 1
  %v74 = icmp slt i64 %v73, %v8
  br i1 %v74, label %b62, label %b63
b63:
  %v75 = phi float [ %v60, %b18 ], [ %v72, %b62 ]
  %v76 = getelementptr float, ptr %v6, i64 %v13
  store float %v75, ptr %v76, align 4
  %v77 = add nsw i64 %v12, 1
  %v78 = icmp slt i64 %v77, %a3
  br i1 %v78, label %b9, label %b10
}

declare i64 @llvm.expect.i64(i64, i64) 

!0 = !{i32 1}
