target triple = "x86_64-unknown-linux-gnu"
define i32 @graphc_kernel(ptr %a0, ptr %a1, i64 %a2, i64 %a3, ptr %a4) nounwind "no-builtins" "prefer-vector-width"="512" {
entry1:
  br label %start2
start2:
  %v3 = getelementptr ptr, ptr %a0, i64 0
  %v4 = load ptr, ptr %v3
  %v5 = getelementptr ptr, ptr %a0, i64 1
  %v6 = load ptr, ptr %v5
  %v7 = sub i64 %a3, %a2
  %v8 = and i64 %v7, 15
  %v9 = sub i64 %a3, %v8
  %v13 = icmp slt i64 %a2, %v9
  br i1 %v13, label %b10, label %b12
b10:
  br label %b11
b11:
  %v14 = phi i64 [ %a2, %b10 ], [ %v24, %b11 ]
  %v15 = call i64 @llvm.expect.i64(i64 %v14, i64 0)
  %v16 = getelementptr float, ptr %v4, i64 %v15
  %v17 = load <16 x float>, ptr %v16, align 4
  %v18 = call <16 x float> @llvm.fma.v16f32(<16 x float> %v17, <16 x float> %v17, <16 x float> splat (float 0x3FE0000000000000))
  %v19 = call <16 x float> @llvm.maximum.v16f32(<16 x float> %v18, <16 x float> splat (float 0x0000000000000000))
  %v20 = fmul <16 x float> %v17, %v17
  %v21 = fadd <16 x float> %v20, splat (float 0x3FF0000000000000)
  %v22 = fdiv <16 x float> %v19, %v21
  %v23 = getelementptr float, ptr %v6, i64 %v15
  store <16 x float> %v22, ptr %v23, align 4
  %v24 = add nsw i64 %v14, 16
  %v25 = icmp slt i64 %v24, %v9
  br i1 %v25, label %b11, label %b12
b12:
  %v29 = icmp slt i64 %v9, %a3
  br i1 %v29, label %b26, label %b28
b26:
  br label %b27
b27:
  %v30 = phi i64 [ %v9, %b26 ], [ %v47, %b27 ]
  %v31 = call i64 @llvm.expect.i64(i64 %v30, i64 0)
  %v32 = sub i64 %a3, %v31
  %v33 = call i64 @llvm.smax.i64(i64 %v32, i64 0)
  %v34 = call i64 @llvm.smin.i64(i64 %v33, i64 16)
  %v35 = trunc i64 %v34 to i8
  %v36 = insertelement <16 x i8> poison, i8 %v35, i32 0
  %v37 = shufflevector <16 x i8> %v36, <16 x i8> poison, <16 x i32> splat (i32 0)
  %v38 = icmp ult <16 x i8> <i8 0, i8 1, i8 2, i8 3, i8 4, i8 5, i8 6, i8 7, i8 8, i8 9, i8 10, i8 11, i8 12, i8 13, i8 14, i8 15>, %v37
  %v39 = getelementptr float, ptr %v4, i64 %v31
  %v40 = call <16 x float> @llvm.masked.load.v16f32.p0(ptr %v39, i32 4, <16 x i1> %v38, <16 x float> splat (float 0x0000000000000000))
  %v41 = call <16 x float> @llvm.fma.v16f32(<16 x float> %v40, <16 x float> %v40, <16 x float> splat (float 0x3FE0000000000000))
  %v42 = call <16 x float> @llvm.maximum.v16f32(<16 x float> %v41, <16 x float> splat (float 0x0000000000000000))
  %v43 = fmul <16 x float> %v40, %v40
  %v44 = fadd <16 x float> %v43, splat (float 0x3FF0000000000000)
  %v45 = fdiv <16 x float> %v42, %v44
  %v46 = getelementptr float, ptr %v6, i64 %v31
  call void @llvm.masked.store.v16f32.p0(<16 x float> %v45, ptr %v46, i32 4, <16 x i1> %v38)
  %v47 = add nsw i64 %v30, 16
  %v48 = icmp slt i64 %v47, %a3
  br i1 %v48, label %b27, label %b28
b28:
  ret i32 0
}

declare i64 @llvm.expect.i64(i64, i64) 

declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>) 

declare <16 x float> @llvm.maximum.v16f32(<16 x float>, <16 x float>) 

declare i64 @llvm.smax.i64(i64, i64) 

declare i64 @llvm.smin.i64(i64, i64) 

declare <16 x float> @llvm.masked.load.v16f32.p0(ptr, i32, <16 x i1>, <16 x float>) 

declare void @llvm.masked.store.v16f32.p0(<16 x float>, ptr, i32, <16 x i1>) 

!0 = !{i32 1}
