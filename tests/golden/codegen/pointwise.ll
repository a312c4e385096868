target triple = "x86_64-unknown-linux-gnu"
define i32 @graphc_kernel(ptr %a0, ptr %a1, i64 %a2, i64 %a3, ptr %a4) nounwind "no-builtins" "prefer-vector-width"="512" {
entry1:
  br label %start2
start2:
  %v3 = getelementptr ptr, ptr %a0, i64 0
  %v4 = load ptr, ptr %v3
  %v5 = getelementptr ptr, ptr %a0, i64 1
  %v6 = load ptr, ptr %v5
  %v7 = mul i64 %a2, 18446744073709551615
  %v8 = add i64 %v7, %a3
  %v9 = and i64 %v8, 15
  %v10 = mul i64 %v9, 18446744073709551615
  %v11 = add i64 %v10, %a3
  %v14 = icmp slt i64 %a2, %v11
  br i1 %v14, label %b12, label %b13
b12:
  %v15 = phi i64 [ %a2, %start2 ], [ %v24, %b12 ]
  %v16 = getelementptr float, ptr %v4, i64 %v15
  %v17 = load <16 x float>, ptr %v16, align 4
  %v18 = call <16 x float> @llvm.fma.v16f32(<16 x float> %v17, <16 x float> %v17, <16 x float> splat (float 0x3FE0000000000000))
  %v19 = call <16 x float> @llvm.maximum.v16f32(<16 x float> %v18, <16 x float> splat (float 0x0000000000000000))
  %v20 = fmul <16 x float> %v17, %v17
  %v21 = fadd <16 x float> %v20, splat (float 0x3FF0000000000000)
  %v22 = fdiv <16 x float> %v19, %v21
  %v23 = getelementptr float, ptr %v6, i64 %v15
  store <16 x float> %v22, ptr %v23, align 4
  %v24 = add nsw i64 %v15, 16
  %v25 = icmp slt i64 %v24, %v11
  br i1 %v25, label %b12, label %b13
b13:
  %v28 = icmp slt i64 %v11, %a3
  br i1 %v28, label %b26, label %b27
b26:
  %v29 = phi i64 [ %v11, %b13 ], [ %v46, %b26 ]
  %v30 = mul i64 %v29, 18446744073709551615
  %v31 = add i64 %a3, %v30
  %v32 = call i64 @llvm.smax.i64(i64 %v31, i64 0)
  %v33 = call i64 @llvm.smin.i64(i64 %v32, i64 16)
  %v34 = trunc i64 %v33 to i8
  %v35 = insertelement <16 x i8> poison, i8 %v34, i32 0
  %v36 = shufflevector <16 x i8> %v35, <16 x i8> poison, <16 x i32> splat (i32 0)
  %v37 = icmp ult <16 x i8> <i8 0, i8 1, i8 2, i8 3, i8 4, i8 5, i8 6, i8 7, i8 8, i8 9, i8 10, i8 11, i8 12, i8 13, i8 14, i8 15>, %v36
  %v38 = getelementptr float, ptr %v4, i64 %v29
  %v39 = call <16 x float> @llvm.masked.load.v16f32.p0(ptr %v38, i32 4, <16 x i1> %v37, <16 x float> splat (float 0x0000000000000000))
  %v40 = call <16 x float> @llvm.fma.v16f32(<16 x float> %v39, <16 x float> %v39, <16 x float> splat (float 0x3FE0000000000000))
  %v41 = call <16 x float> @llvm.maximum.v16f32(<16 x float> %v40, <16 x float> splat (float 0x0000000000000000))
  %v42 = fmul <16 x float> %v39, %v39
  %v43 = fadd <16 x float> %v42, splat (float 0x3FF0000000000000)
  %v44 = fdiv <16 x float> %v41, %v43
  %v45 = getelementptr float, ptr %v6, i64 %v29
  call void @llvm.masked.store.v16f32.p0(<16 x float> %v44, ptr %v45, i32 4, <16 x i1> %v37)
  %v46 = add nsw i64 %v29, 16
  %v47 = icmp slt i64 %v46, %a3
  br i1 %v47, label %b26, label %b27
b27:
  ret i32 0
}

declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>) 

declare <16 x float> @llvm.maximum.v16f32(<16 x float>, <16 x float>) 

declare i64 @llvm.smax.i64(i64, i64) 

declare i64 @llvm.smin.i64(i64, i64) 

declare <16 x float> @llvm.masked.load.v16f32.p0(ptr, i32, <16 x i1>, <16 x float>) 

declare void @llvm.masked.store.v16f32.p0(<16 x float>, ptr, i32, <16 x i1>) 

!0 = !{i32 1}
